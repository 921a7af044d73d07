"""A chat with Django Channels, as a project on disk: rooms are groups, a socket is a consumer.

One kind of socket is an async consumer, the other a plain one that runs in threads; both meet in
the same rooms. The layer between the consumers, and between processes, comes from the environment.
"""

FILES = {
    "quay/__init__.py": "",
    "quay/settings.py": """
        import json
        import os
        from pathlib import Path

        SECRET_KEY = "only for this test"
        DEBUG = False
        ALLOWED_HOSTS = ["127.0.0.1"]
        ROOT_URLCONF = "quay.urls"
        ASGI_APPLICATION = "quay.asgi.application"
        INSTALLED_APPS = [
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
            "channels",
        ]
        MIDDLEWARE = [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ]
        TEMPLATES = [
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).parent],
            }
        ]
        DATABASES = {
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": Path(__file__).parent / "quay.sqlite3",
            }
        }
        SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        CHANNEL_LAYERS = json.loads(os.environ["QUAY_LAYERS"])
    """,
    "quay/asgi.py": """
        import os

        from django.core.asgi import get_asgi_application

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "quay.settings")
        pages = get_asgi_application()

        from channels.auth import AuthMiddlewareStack
        from channels.routing import ProtocolTypeRouter, URLRouter
        from channels.security.websocket import AllowedHostsOriginValidator
        from django.urls import path

        from quay import consumers

        sockets = URLRouter(
            [
                path("async/<slug:room>/", consumers.AsyncMooring.as_asgi()),
                path("sync/<slug:room>/", consumers.SyncMooring.as_asgi()),
            ]
        )
        talk = AllowedHostsOriginValidator(AuthMiddlewareStack(sockets))


        async def told(scope, receive, send):
            try:
                await talk(scope, receive, send)
            finally:  # the consumer is over, and its reads of the layer with it
                print(f"over: {scope['path']}?{scope['query_string'].decode()};", flush=True)


        application = ProtocolTypeRouter({"http": pages, "websocket": told})
    """,
    "quay/urls.py": """
        from channels.layers import get_channel_layer
        from django.contrib.auth import get_user_model, login
        from django.http import HttpResponse
        from django.shortcuts import render
        from django.urls import path


        def come_aboard(request, name):
            user, _ = get_user_model().objects.get_or_create(username=name)
            login(request, user)
            return HttpResponse("welcome")


        def room(request, kind, room):
            return render(request, "room.html", {"address": f"/{kind}/{room}/"})


        async def members(request, room):
            layer = get_channel_layer()
            if hasattr(layer, "hosts"):
                key = f"asgi:group:room.{room}"
                number = await layer.connection(layer.consistent_hash(key)).zcard(key)
            else:
                number = len(layer.groups.get(f"room.{room}", ()))
            return HttpResponse(str(number))


        urlpatterns = [
            path("members/<slug:room>/", members),
            path("come-aboard/<slug:name>", come_aboard),
            path("<slug:kind>/<slug:room>/", room),
        ]
    """,
    "quay/consumers.py": """
        import json

        from asgiref.sync import async_to_sync
        from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer


        def who(scope):
            return scope["user"].get_username() or "somebody"


        class AsyncMooring(AsyncJsonWebsocketConsumer):
            async def connect(self):
                self.group = "room." + self.scope["url_route"]["kwargs"]["room"]
                await self.channel_layer.group_add(self.group, self.channel_name)
                await self.accept()
                await self.tell("came")

            async def receive_json(self, content):
                await self.tell("said " + content["line"])

            async def disconnect(self, code):
                await self.channel_layer.group_discard(self.group, self.channel_name)
                await self.tell("left")

            async def tell(self, what):
                event = {"type": "room.news", "line": who(self.scope) + " " + what}
                await self.channel_layer.group_send(self.group, event)

            async def room_news(self, event):
                await self.send_json({"line": event["line"]})


        class SyncMooring(WebsocketConsumer):
            def connect(self):
                self.group = "room." + self.scope["url_route"]["kwargs"]["room"]
                async_to_sync(self.channel_layer.group_add)(self.group, self.channel_name)
                self.accept()
                self.tell("came")

            def receive(self, text_data):
                self.tell("said " + json.loads(text_data)["line"])

            def disconnect(self, code):
                async_to_sync(self.channel_layer.group_discard)(self.group, self.channel_name)
                self.tell("left")

            def tell(self, what):
                event = {"type": "room.news", "line": who(self.scope) + " " + what}
                async_to_sync(self.channel_layer.group_send)(self.group, event)

            def room_news(self, event):
                self.send(json.dumps({"line": event["line"]}))
    """,
    "quay/room.html": """
        <!doctype html>
        <title>{{ address }}</title>
        <form id=form><input id=line autocomplete=off><button>Say it</button></form>
        <ol id=log></ol>
        <p id=end></p>
        <script>
        const socket = new WebSocket(`ws://${location.host}{{ address }}`);
        const show = (place, tag, text) => {
          const element = document.createElement(tag);
          element.textContent = text;
          document.getElementById(place).append(element);
        };
        socket.onmessage = (event) => show("log", "li", JSON.parse(event.data).line);
        socket.onclose = (event) => show("end", "b", `${event.code} ${event.wasClean}`);
        document.getElementById("form").onsubmit = (event) => {
          event.preventDefault();
          const line = document.getElementById("line");
          socket.send(JSON.stringify({line: line.value}));
          line.value = "";
        };
        </script>
    """,
}
