"""The least a Django project needs to answer; a real one keeps its key and hosts elsewhere."""

SECRET_KEY = "only for this example"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "harbour.urls"
ASGI_APPLICATION = "harbour.asgi.application"
INSTALLED_APPS: list[str] = []
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
DATABASES: dict[str, dict[str, str]] = {}
USE_TZ = True
