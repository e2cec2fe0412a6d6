"""Why a Redis was not reached, or refuses, in words that hold no password."""

from __future__ import annotations

import os
import socket
import ssl

from redis.exceptions import ResponseError


def cause(error: BaseException) -> str:
    """What Redis replied, or else the class of an error and what the system or TLS reports as its cause.

    Not the text of just any error: it may quote a URL, and with it a password.
    """
    if isinstance(error, ResponseError):
        return str(error).partition(", with args")[0]  # it quotes an AUTH that it does not know, and its password
    behind: BaseException | None = error
    while behind is not None:
        if said := _said(behind):
            return f"{type(error).__name__}: {said}"
        behind = behind.__cause__ or behind.__context__
    return type(error).__name__


def _said(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return (error.reason or "TLS").replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    # Python has no class for this.
    return "no answer to the TLS handshake" if "handshake operation timed out" in str(error) else ""
