"""The annotation page as one Starlette application: every route, and what it needs to be entered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from ayni.errors import BadInput
from ayni.feedback.entries import Annotator
from ayni.feedback.page import admin, dialogues, judge, sign_in
from ayni.feedback.page.guard import HEADERS, Guard
from ayni.feedback.page.views import PageContext, Quality, Talk, View, endpoint, rendered, static_files
from ayni.feedback.store import Store

# Views at work at one time, the others wait in line. They mostly compute, and Python's threads compute in turns: of 40
# that want to, the one that holds the store's lock waits for the others at every statement, and everybody for it.
VIEWS = 4


def app(
    store: Store,
    *,
    host_names: Iterable[str],
    talk: Talk | None = None,
    quality: Quality | None = None,
    require_login: bool = True,
    local: Annotator | None = None,
    secure: bool = False,
) -> Starlette:
    """The page over `store`, answering only to `host_names` (without ports).

    `talk` answers the prompts that annotators write; without it they cannot write any. `quality` gives the numbers of
    the admin page. Without `require_login` everybody is `local`: for one person on one machine. `secure`: the page is
    reached by https (a proxy's), so cookies travel only there. Raises BadInput when nobody could be anybody.
    """
    if not require_login and local is None:
        raise BadInput("without login somebody must be named who judges", field="local")
    context = PageContext(store, talk=talk, quality=quality, local=None if require_login else local, secure=secure)
    made = Starlette(
        routes=_routes(context),
        middleware=[Middleware(Guard, host_names=tuple(host_names), secure=secure)],
        exception_handlers={HTTPException: _refused(context), Exception: _broken},
    )
    made.router.redirect_slashes = False  # an address is right or it is not there
    return made


def _routes(context: PageContext) -> list[Route]:
    one_at_a_time = CapacityLimiter(1)  # the models answer one person after the other; who judges need not wait
    few = CapacityLimiter(VIEWS)

    def get(path: str, view: View, role: str | None = "annotator") -> Route:
        return Route(path, endpoint(context, view, role=role, limiter=few), methods=["GET"])

    def post(path: str, view: View, role: str | None = "annotator", limiter: CapacityLimiter = few) -> Route:
        return Route(path, endpoint(context, view, role=role, limiter=limiter), methods=["POST"])

    return [
        get("/", sign_in.start),
        get("/sign-in", sign_in.invitation, None),
        post("/sign-in", sign_in.sign_in, None),
        post("/sign-out", sign_in.sign_out),
        get("/judge", judge.show),
        post("/judge", judge.judge),
        post("/undo", judge.undo),
        get("/write", dialogues.write),
        post("/write", dialogues.begin, limiter=one_at_a_time),
        get("/dialogue", dialogues.show),
        post("/dialogue", dialogues.go_on, limiter=one_at_a_time),
        post("/dialogue/end", dialogues.end),
        get("/admin", admin.overview, "admin"),
        post("/admin/invite", admin.invite, "admin"),
        post("/admin/close", admin.close, "admin"),
        post("/admin/retire", admin.retire, "admin"),
        Route("/static/{name}", _static(), methods=["GET"]),
    ]


Respond = Callable[[Request], Awaitable[Response]]


def _static() -> Respond:
    served = static_files()

    async def static(request: Request) -> Response:
        """One of a fixed handful of files; a name is looked up, never opened."""
        if (found := served.get(request.path_params["name"])) is None:
            return PlainTextResponse("There is no such file.\n", 404)
        content, kind = found
        # The address carries the content's hash, so it may be kept for good.
        return Response(content, media_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"})

    return static


def _refused(context: PageContext) -> Callable[[Request, Exception], Awaitable[Response]]:
    titles = {401: "Please sign in", 403: "Not for you", 404: "Not found", 405: "Not possible"}

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, title = error.status_code, titles.get(error.status_code, "That did not work")
        message = error.detail if error.detail not in ("Not Found", "Method Not Allowed") else "There is nothing here."
        page = rendered(context, "error.html.jinja", None, message=message, title=title)
        return HTMLResponse(page, status, dict(error.headers or {}))

    return refused


async def _broken(request: Request, error: Exception) -> Response:
    """Outside the guard, so the headers are set here. The traceback goes to the server's log, never to the page."""
    text = "Something broke on our side, and it is noted. What was saved before is safe. Please try again.\n"
    return PlainTextResponse(text, 500, dict(HEADERS))
