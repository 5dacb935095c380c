"""The parameters of /generate, and TGI's validation of them."""

MAX_TOTAL = 2048
MAX_STOPS = 4
MAX_TOP = 5


class Invalid(Exception):
    """A validation error of TGI."""

    def body(self):
        return {"error": f"Input validation error: {self}", "error_type": "validation"}


class Parameters(dict):
    def check(self, inputs: str, streams: bool) -> None:
        """Checks with the messages and the order of TGI's router/src/validation.rs."""
        rules = [
            (self["decoder_input_details"] and streams, "`decoder_input_details` == true is not supported when streaming tokens"),
            (not positive(self["temperature"]), "`temperature` must be strictly positive"),
            (not positive(self["repetition_penalty"]), "`repetition_penalty` must be strictly positive"),
            (not -2 <= (self["frequency_penalty"] or 0) <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"),
            (not share(self["top_p"]), "`top_p` must be > 0.0 and < 1.0"),
            (not share(self["typical_p"]), "`typical_p` must be > 0.0 and < 1.0"),
            (not positive(self["top_k"]), "`top_k` must be strictly positive"),
            (not positive(self["max_new_tokens"]), "`max_new_tokens` must be strictly positive"),
            (len(self["stop"]) > MAX_STOPS, f"`stop` supports up to {MAX_STOPS} stop sequences. Given: {len(self['stop'])}"),
            (self["top_n_tokens"] > MAX_TOP, f"`top_n_tokens` must be >= 0 and <= {MAX_TOP}. Given: {self['top_n_tokens']}"),
            (not inputs, "`inputs` cannot be empty"),
        ]
        for broken, words in rules:
            if broken:
                raise Invalid(words)


def positive(value) -> bool:
    return value is None or value > 0


def share(value) -> bool:
    return value is None or 0 < value < 1


FIELDS = {
    "temperature": float,
    "repetition_penalty": float,
    "frequency_penalty": float,
    "top_p": float,
    "typical_p": float,
    "top_k": int,
    "max_new_tokens": int,
    "seed": int,
}


def read(given: dict) -> Parameters:
    """As serde would: a wrong type or a negative u64 is no validation error."""
    p = Parameters({name: None for name in FIELDS})
    for name, kind in FIELDS.items():
        value = given.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, kind)):
            raise TypeError(f"parameters.{name}: invalid type")
        if name == "seed" and not 0 <= value < 1 << 64:
            raise TypeError("parameters.seed: invalid value, expected u64")
        p[name] = kind(value)
    for name in "do_sample", "details", "decoder_input_details":
        p[name] = given.get(name, False)
        if not isinstance(p[name], bool):
            raise TypeError(f"parameters.{name}: invalid type, expected a boolean")
    p["stop"] = list(given.get("stop") or [])
    p["top_n_tokens"] = int(given.get("top_n_tokens") or 0)
    p["grammar"] = given.get("grammar")
    return p
