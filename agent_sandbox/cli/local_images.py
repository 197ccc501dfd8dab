"""`agent-sandbox local images`: the images that a stack's containers can be made from."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent_sandbox.cli.stack_options import stack_directory, stack_options
from agent_sandbox.local.errors import LocalError

if TYPE_CHECKING:
    from agent_sandbox.local.node.oci import ImageStore


def _store(name: str, state_dir: Path | None) -> "ImageStore":
    from agent_sandbox.local.node.oci import ImageStore

    return ImageStore(stack_directory(name, state_dir).node / "images")


@click.group()
def images() -> None:
    """Images of a stack, beside the two that are built in.

    \b
    agent-sandbox local images import python.tar       # of `docker save`, `podman save`, `skopeo copy … oci-archive:`
    agent-sandbox local images import ./layout --as localhost/tool:1
    agent-sandbox local images list

    While Podman's or Docker's socket is there, images are also fetched through it when a Pod asks for them.
    """


@images.command("import")
@stack_options
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "names", multiple=True, metavar="NAME", help="Its name, instead of the one it was saved under.")
def import_image(name: str, state_dir: Path | None, source: Path, names: tuple[str, ...]) -> None:
    """Unpack an image from an OCI layout (a directory or a tar) or from what `docker save` wrote."""
    from agent_sandbox.local.node.oci.errors import ImageFormatError

    click.echo(f"Unpacking {source} …", err=True)
    try:
        stack_directory(name, state_dir).create()
        found = _store(name, state_dir).add_layout(source, names)
    except (ImageFormatError, LocalError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for image in found:
        click.echo(f"{image.digest}  {', '.join(image.names) or '(no name: give it one with --as)'}")


@images.command("list")
@stack_options
def list_images(name: str, state_dir: Path | None) -> None:
    """Print the images: id and names."""
    for image in _store(name, state_dir).images():
        click.echo(f"{image.digest}  {', '.join(image.names)}")


@images.command("remove")
@stack_options
@click.argument("image")
def remove_image(name: str, state_dir: Path | None, image: str) -> None:
    """Remove an image, by name or id. Containers that run on it lose files that they have not opened yet."""
    if not _store(name, state_dir).remove(image):
        raise click.ClickException(f"there is no image {image!r}; see `agent-sandbox local images list`")
    click.echo(f"Removed {image}.")
