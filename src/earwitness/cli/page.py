"""`earwitness page`: a web page that captions on the visitor's own machine."""

from pathlib import Path
from typing import Annotated

import typer


def page(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the page to.")],
    model: Annotated[
        str, typer.Option(help="A pocket model, a model folder, or owner/name on the hub.")
    ] = "pocket-lamb",
    onnxruntime: Annotated[
        Path | None,
        typer.Option(
            metavar="TARBALL",
            help="The npm tarball of onnxruntime-web; by default npm downloads it.",
        ),
    ] = None,
) -> None:
    """Writes a static web page that captions a recording or a file in the browser.

    No server computes anything, and no sound leaves the visitor's machine. Any static web server
    can host the folder (46 MB with pocket-lamb); after the first visit the page works offline.

    Examples:

        earwitness page site/

        python -m http.server --directory site/
    """
    from earwitness.browser.page import write_page

    write_page(model, folder, onnxruntime)
    typer.echo(f"{folder / 'index.html'}")
