"""TLS on each side, made of the options: towards clients, the API's callers, and targets."""

import ssl

from carrel_proxy.chp.arguments import OptionsError
from carrel_proxy.chp.options import Options, TlsFiles
from carrel_proxy.tls import CertificateFiles, TlsError, public_context

_NEVER = "!aNULL:!eNULL:!EXPORT:!DES:!3DES:!RC4:!MD5:!PSK:!SRP"
"""What no list of ciphers can ask for."""


def public_tls(options: Options) -> ssl.SSLContext | None:
    """Return what the public side speaks TLS with; None for plain HTTP.

    Raises:
        OptionsError: If a file cannot be used.
    """
    return _listening(options.tls, "--ssl")


def api_tls(options: Options) -> ssl.SSLContext | None:
    """Return what the REST API speaks TLS with; None for plain HTTP.

    Raises:
        OptionsError: If a file cannot be used.
    """
    return _listening(options.api_tls, "--api-ssl")


def target_tls(options: Options) -> ssl.SSLContext:
    """Return what targets are spoken to with over TLS. They are verified unless told otherwise.

    Raises:
        OptionsError: If a file cannot be used.
    """
    files = options.client_tls
    try:
        # An authority that is given is the only one, as in Node.
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=files.ca)
    except (OSError, ssl.SSLError) as error:
        raise OptionsError(f"--client-ssl-ca {files.ca}: {_reason(error)}") from error
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # what the hub's own authority issues is not
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if files.cert is not None and files.key is not None:
        try:
            context.load_cert_chain(files.cert, files.key, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise OptionsError(f"--client-ssl-key, --client-ssl-cert: {_reason(error)}") from error
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _listening(files: TlsFiles, option: str) -> ssl.SSLContext | None:
    if files.key is None or files.cert is None:
        return None
    ciphers, newest_alone = _ciphers(files.ciphers)
    try:
        context = public_context(
            [CertificateFiles(files.cert, files.key, files.passphrase)],
            ciphers=ciphers,
            client_ca=files.ca,
            # Node rejects who shows none, or none that is vouched for, unless told not to, and no
            # option tells it so.
            client_certificates=ssl.CERT_REQUIRED if files.request_cert else ssl.CERT_NONE,
        )
    except TlsError as error:
        options = f"{option}-key, {option}-cert, {option}-ca, --ssl-ciphers"
        raise OptionsError(f"{options}: {error}") from error
    if files.request_cert and files.ca is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if newest_alone:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    elif files.version is not None:
        context.minimum_version = context.maximum_version = files.version
    return context


def _ciphers(text: str | None) -> tuple[str | None, bool]:
    """Return a list for TLS 1.2, and whether only ciphers of 1.3 were asked for.

    Those of 1.3 cannot be chosen among, and are all good.
    """
    if text is None:
        return None, False
    asked = [name for name in text.replace(",", ":").replace(" ", ":").split(":") if name]
    older = [name for name in asked if not name.startswith(("TLS_", "@SECLEVEL"))]
    if asked and not older:
        return None, True
    return ":".join([*older, _NEVER]), False


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) or not isinstance(error, OSError):
        return "not a matching pair of PEM files, or encrypted"
    return error.strerror or str(error)
