"""Files of the user's configuration, replaced whole: a reader sees the old one or the new one."""

import os
import shutil


def replace_file(path: str, data: bytes) -> None:
    """Write a file, over an older one whose permissions it keeps; its folder is made.

    What a link leads to is written, not the link: people keep such files elsewhere.
    """
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = f"{path}.{os.getpid()}"
    try:
        with open(fresh, "wb") as file:
            file.write(data)
        if os.path.exists(path):
            shutil.copymode(path, fresh)
        os.replace(fresh, path)
    except BaseException:
        if os.path.exists(fresh):
            os.unlink(fresh)
        raise
