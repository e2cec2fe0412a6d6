"""The pages of the project."""

from __future__ import annotations

from crm import views
from django.urls import path

urlpatterns = [path("customers/<int:number>", views.customer), path("import", views.start_import)]
