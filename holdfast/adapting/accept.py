"""Whether to deploy: the stream served in each way there is, judged by a few labels."""

from pathlib import Path

from holdfast.adapting.assembly import Assembly
from holdfast.adapting.run import checked
from holdfast.callbacks import GuardConfig
from holdfast.callbacks import acceptance as acceptances
from holdfast.callbacks.report.acceptance import acceptance_page
from holdfast.callbacks.settings import NoGuardConfig
from holdfast.datamodules import StreamLoader
from holdfast.tta.acceptance import Acceptance
from holdfast.tta.config import to_dict
from holdfast.tta.errors import InputError
from holdfast.tta.folder import check_folder, claimed


def accept(assembly: Assembly) -> tuple[Path, Acceptance]:
    """Serve the stream in each way there is, and say by its labels which to deploy.

    Returns:
        The folder with ``acceptance.json`` and ``acceptance.html``, and what was found.

    Raises:
        InputError: there is nothing to choose from, or too few labels.
    """
    config = assembly.config
    if config.guard.kind == "off" or config.method.kind == "source":
        raise InputError(
            "accept asks whether a guarded method pays: name a method, method=dsbr, and a guard, "
            "guard=on"
        )
    task = assembly.checkpoint.meaning
    if not task.by_image:
        raise InputError(
            f"accept compares models by one label an image, and the source is of task {task.name}: "
            "adapt to images whose truth is known, and hold served against source and control, "
            "report=true"
        )
    check_folder(acceptances.PROGRAM, config)
    arguments = checked(assembly).arguments
    together = config.data.options.aggregate == "group"
    labels = acceptances.labels_of(
        *(assembly.images, assembly.stream.rows, config.labels, assembly.checkpoint.class_names),
        called=config.data.options.classes,
        together=together,
    )
    ours = assembly if config.guard.kind == "on" else assembly.guarded_by("on", GuardConfig())
    makers = {
        "guarded": assembly.guarded,
        "unguarded": assembly.guarded_by("off", NoGuardConfig()).guarded,
        "fixed": ours.guarded,
    }
    with claimed(acceptances.PROGRAM, config, config.name or assembly.name) as folder:
        loader = assembly.loader
        assert isinstance(loader, StreamLoader), "a stream that waits is refused"
        found = acceptances.acceptance(
            *(assembly.images, labels, loader, makers, arguments, config.seed),
            together=together,
        )
        page = acceptance_page(found, folder.name, to_dict(config))
        acceptances.write(folder, found, page)
    return folder, found
