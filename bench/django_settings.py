"""Settings of the small Django site in django_app.py.

The middleware is what `startproject` gives, less sessions, login and messages, which would
measure a database.
"""

ALLOWED_HOSTS = ["*"]
DEBUG = False
LOGGING_CONFIG = None
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "bench.django_app"
SECRET_KEY = "only measured, never deployed"

PAGE = (
    "<!doctype html><title>{{ title }}</title><table>{% for order in orders %}"
    "<tr><td>{{ order.number }}<td>{{ order.customer|title }}<td>{{ order.total|floatformat:2 }}"
    "{% endfor %}</table>"
)
# Cached, as Django does by itself where templates are files.
LOADERS = [
    (
        "django.template.loaders.cached.Loader",
        [("django.template.loaders.locmem.Loader", {"orders.html": PAGE})],
    )
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": LOADERS},
    }
]
