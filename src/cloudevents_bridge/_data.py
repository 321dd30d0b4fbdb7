"""The data of an event: encoded once, when the event is made, and decoded when somebody asks for it."""

from __future__ import annotations

import builtins
import math
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from cloudevents_bridge._media import Media, charset_known, media_type
from cloudevents_bridge._members import NO_DATA
from cloudevents_bridge._strings import refuse
from cloudevents_bridge.errors import DecodeError, InvalidArgumentError

T = TypeVar("T")

JSON = "application/json"
BINARY = "application/octet-stream"
_BOM = b"\xef\xbb\xbf"  # before JSON it may be ignored: RFC 8259, section 8.1

Encoded: TypeAlias = tuple[Raw, bytes | str | None, str]
"""Data as an event keeps it: a JSON value; a body, which is text that is no JSON or bytes; the datacontenttype."""


def _model_to_builtins(value: Any) -> Any:
    if hasattr(value, "model_dump_json"):  # pydantic, without importing it; by alias, as it is read back
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"a {type(value).__qualname__} has no JSON form")


encode_plain = msgspec.json.Encoder(enc_hook=_model_to_builtins).encode
"""`encode_json` but for its checks: it writes NaN and infinity as null, and its errors are others."""
decode_plain = msgspec.json.Decoder().decode
"""`decode_json`, with errors of the kinds in `NOT_JSON`."""
NOT_JSON = (RecursionError, msgspec.DecodeError, UnicodeDecodeError)
_decode_raw = msgspec.json.Decoder(Raw).decode


def encode_json(value: object) -> bytes:
    """Encode a JSON value.

    Raises:
        InvalidArgumentError: for a value that JSON has no form for: NaN and infinity, lone surrogates, keys that are
            neither strings nor numbers, objects of unknown classes, a structure that contains itself.
    """
    try:
        encoded = encode_plain(value)
    except RecursionError:
        refuse_data(value, "not contain itself, nor be nested so deeply that the interpreter gives up")
    except UnicodeEncodeError:
        refuse_data(value, "not hold lone surrogates: they have no UTF-8 form")
    except Exception as exc:  # noqa: BLE001  a model's own hooks raise what they like
        refuse_data(value, f"have a JSON form: {exc}", exc)
    # msgspec writes NaN and infinity as null, silently; what reads back as the same holds neither
    if encoded.rfind(b"null") >= 0 and decode_json(encoded) != value:
        _refuse_non_finite(value)
    return encoded


def _refuse_non_finite(value: object) -> None:
    def as_plain(model: Any) -> Any:
        return model.model_dump() if hasattr(model, "model_dump_json") else _model_to_builtins(model)

    todo = [msgspec.to_builtins(value, enc_hook=as_plain, builtin_types=(float,))]
    while todo:
        item = todo.pop()
        if isinstance(item, float) and not math.isfinite(item):
            refuse_data(value, f"not hold {item!r}: JSON has no NaN and no infinity")
        elif isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple)):
            todo.extend(item)


def refuse_data(value: object, rule: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the error for data. It names the class of the value and not the value: data may be confidential."""
    raise InvalidArgumentError(f"data, a {type(value).__qualname__}, cannot be encoded: it must {rule}") from cause


def encode_data(value: object, datacontenttype: str | None) -> Encoded:
    """Encode what the constructor was given.

    bytes stay as they are (application/octet-stream where nothing else is said); a str under a datacontenttype that is
    not JSON is text in its charset; everything else, str included, is a JSON value.

    Raises:
        InvalidArgumentError: if the value does not go with the datacontenttype or has no JSON form.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return NO_DATA, bytes(value), datacontenttype or BINARY
    if datacontenttype is None:
        return Raw(encode_json(value)), None, JSON
    media = media_type(datacontenttype)
    if media is None:
        refuse("datacontenttype", datacontenttype, "be a media type")
    if media.kind == "json":
        return Raw(encode_json(value)), None, datacontenttype
    if not isinstance(value, str):
        refuse_data(value, f"be a string or bytes where datacontenttype is {datacontenttype!r}, which is not JSON")
    text_bytes(value, media)
    return NO_DATA, str.__str__(value), datacontenttype


def text_bytes(text: str, media: Media) -> bytes:
    """Text in the charset of its media type. Raises `InvalidArgumentError` if that is unknown or lacks a character."""
    if not charset_known(media.charset):
        raise InvalidArgumentError(f"the data is text in the charset {media.charset!r}, which is not known here")
    try:
        text.encode()  # no charset may carry what UTF-8 cannot
        return text.encode(media.charset)
    except UnicodeError:
        raise InvalidArgumentError(f"the data has characters that the charset {media.charset} has not") from None


def body_bytes(body: bytes | str, datacontenttype: str | None) -> bytes:
    """The bytes of a body that is no JSON value."""
    if isinstance(body, bytes):
        return body
    return text_bytes(body, (datacontenttype and media_type(datacontenttype)) or Media("text"))


def decode_text(body: bytes, charset: str) -> str:
    """Bytes as text. Raises `DecodeError`, without the bytes."""
    if not charset_known(charset):
        raise DecodeError(f"the data is text in the charset {charset!r}, which is not known here: use data_bytes")
    try:
        text = body.decode(charset)
        text.encode()
    except UnicodeError:
        raise DecodeError(f"the data is not valid {charset} text: use data_bytes") from None
    return text


def decode_json(encoded: bytes | Raw) -> Any:
    """Parse JSON. Raises `DecodeError`, which says where it is wrong and not what stands there."""
    try:
        return decode_plain(encoded)
    except NOT_JSON as exc:
        raise not_json(exc) from None


def not_json(error: Exception) -> DecodeError:
    """The error for one of `NOT_JSON`."""
    if isinstance(error, RecursionError):
        return DecodeError("the data is JSON that is nested too deeply: use data_bytes")
    why = error if isinstance(error, msgspec.DecodeError) else "invalid UTF-8"
    return DecodeError(f"the data is not valid JSON ({why}): use data_bytes")


def decode_body(body: bytes | str | None, datacontenttype: str | None) -> Any:
    """What `CloudEvent.data` gives where the event holds no JSON value. Raises `DecodeError`."""
    if not isinstance(body, bytes) or datacontenttype is None:
        return body
    media = media_type(datacontenttype)
    if media is None or media.kind == "bytes":
        return body
    if media.kind == "json":
        return decode_json(body.removeprefix(_BOM))
    return decode_text(body, media.charset)


def is_json(body: bytes) -> bool:
    """Whether the bytes are one JSON value, in UTF-8."""
    try:
        _decode_raw(body)
        return body.isascii() or bool(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def structured_member(body: bytes | str, datacontenttype: str | None) -> bytes:
    """The member of the JSON format for a body: `,"data":…` where it can be said so, else `,"data_base64":…`."""
    if isinstance(body, str):
        return b',"data":' + encode_plain(body)
    media = datacontenttype and media_type(datacontenttype)
    if media and media.kind == "json" and is_json(body):
        return b',"data":' + body
    if media and media.kind == "text":
        try:
            text = decode_text(body, media.charset)
        except DecodeError:
            text = ""
        if text and _comes_back(text, body, media.charset):
            return b',"data":' + encode_plain(text)
    return b',"data_base64":' + encode_plain(body)


def _comes_back(text: str, body: bytes, charset: str) -> bool:
    """Whether the text gives the same bytes again, which a byte order mark, for one, does not survive."""
    try:
        return text.encode(charset) == body
    except UnicodeError:  # ISO-2022-JP reads characters that it cannot write
        return False


def decode_model(value: Raw, body: bytes | str | None, datacontenttype: str | None, model: builtins.type[T]) -> T:
    """The data as an instance of `model`. Raises `DecodeError` with the path of the field, never with its content."""
    encoded: Any = value
    if value is NO_DATA:
        if body is None:
            raise DecodeError("the event has no data")
        if model is bytes:
            return body_bytes(body, datacontenttype)  # type: ignore[return-value]
        media = media_type(datacontenttype) if datacontenttype else None
        if media and media.kind != "json":
            if model is str:
                return body if isinstance(body, str) else decode_text(body, media.charset)  # type: ignore[return-value]
            raise DecodeError(f"datacontenttype is {datacontenttype!r}, which is not JSON: use data or data_bytes")
        encoded = body.removeprefix(_BOM) if isinstance(body, bytes) else body
    elif model is bytes:
        return bytes(value)  # type: ignore[return-value]
    untyped: Any = model
    if hasattr(untyped, "model_validate_json"):
        return _decode_pydantic(untyped.model_validate_json, bytes(encoded))  # type: ignore[no-any-return]
    try:
        return _decoder(untyped).decode(encoded)  # type: ignore[no-any-return]
    except msgspec.ValidationError as exc:
        # the path is wanted, and the text before it may quote the data
        path = str(exc).rpartition(" - at ")[2] if " - at " in str(exc) else "`$`"
        why = str(exc).rpartition(" - at ")[0] or str(exc)
        why = why if why.startswith(("Expected", "Object missing")) else "the value is not allowed"
        raise DecodeError(f"{why}, at {path}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decode_json(encoded)
        raise DecodeError("the data cannot be decoded") from None


def _validate_model(model: Any, value: Any) -> Any:
    if hasattr(model, "model_validate"):
        return _decode_pydantic(model.model_validate, value)
    raise NotImplementedError(f"data_as knows no class {model!r}")


def _decode_pydantic(validate: Any, value: Any) -> Any:
    try:
        return validate(value)
    except ValueError as exc:
        if not hasattr(exc, "errors"):
            raise
        first = exc.errors(include_input=False, include_url=False, include_context=False)[0]
        path = ".".join(("$", *map(str, first["loc"])))
        # a validator's own message may quote the data
        why = first["type"] if first["type"] in ("value_error", "assertion_error") else first["msg"]
        raise DecodeError(f"{why}, at `{path}`") from None


@lru_cache(maxsize=256)
def _decoder(model: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(model, dec_hook=_validate_model)
