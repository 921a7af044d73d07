from django.urls import path

from . import views

urlpatterns = [
    path("", views.home),
    path("async", views.home_async),
    path("stream", views.stream),
    path("stream-sync", views.stream_sync),
    path("source", views.source),
    path("upload", views.upload),
    path("tide", views.tide),
    path("fail", views.fail),
]
