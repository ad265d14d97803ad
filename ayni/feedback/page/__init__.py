"""The page where people compare answers: plain forms that work without JavaScript, for phone, keyboard and reader."""

from ayni.feedback.page.app import app
from ayni.feedback.page.guard import check_bind, is_loopback
from ayni.feedback.page.views import Measure, Quality, Talk

__all__ = ["Measure", "Quality", "Talk", "app", "check_bind", "is_loopback"]
