"""A worker class for Gunicorn: `gunicorn -k tidegate.gunicorn.Worker mysite.asgi:application`."""

from tidegate.gunicorn.worker import Worker

__all__ = ["Worker"]
