"""The HTTP API of text-generation-inference in front of a real model.

TGI itself needs a GPU and gigabytes; here llama.cpp's /completion makes the
tokens, and this file says them in TGI's words: its parameters and what it
refuses of them, its streams, its ends of an answer. TGI=1, 2 or 3 is the
generation that it speaks as, PORT where it listens, LLAMA_PORT where the
server of examples/smollm2 does.
"""

import json
import os
import random
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import llama
from parameters import MAX_TOTAL, Invalid, read

GENERATION = int(os.environ.get("TGI", "3"))
VERSION = {1: "1.4.5", 2: "2.2.0", 3: "3.3.6"}[GENERATION]


class Continuation:
    """One text that is continued, as TGI's batching loop would do it."""

    def __init__(self, inputs: str, ask: dict):
        self.inputs, self.ask = inputs, ask
        self.prompt = llama.tokenize(inputs)
        self.most = ask["max_new_tokens"] or {1: 20, 2: 100, 3: MAX_TOTAL - len(self.prompt)}[GENERATION]
        if len(self.prompt) + self.most > MAX_TOTAL:
            raise Invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {MAX_TOTAL}. "
                f"Given: {len(self.prompt)} `inputs` tokens and {self.most} `max_new_tokens`"
            )
        self.seed = ask["seed"] if ask["seed"] is not None else random.getrandbits(63)
        self.text, self.tokens, self.top, self.reason = "", [], [], None

    def __iter__(self):
        """The tokens, one by one. With the last of them there is a reason."""
        output = ""
        for token, top in llama.complete(self.inputs, self.ask, self.most, self.seed):
            self.tokens.append(token)
            self.top.append(top)
            output += token["text"]
            if not token["special"]:
                self.text += token["text"]
            # In TGI's order; a stop text counts only where a token ends with it.
            if len(self.tokens) >= self.most:
                self.reason = "length"
            elif token["id"] in llama.ENDS:
                self.reason = "eos_token"
            elif any(output.endswith(stop) for stop in self.ask["stop"]):
                self.reason = "stop_sequence"
            yield token, top
            if self.reason:
                return
        raise RuntimeError("the model ended without its end token")

    def details(self, streams: bool) -> dict:
        d = {
            "finish_reason": self.reason,
            "generated_tokens": len(self.tokens),
            "seed": self.seed if self.ask["do_sample"] else None,
        }
        if not streams:
            d["prefill"] = self.prompt if self.ask["decoder_input_details"] else []
            d["tokens"] = self.tokens
            if self.ask["top_n_tokens"]:
                d["top_tokens"] = self.top
        elif GENERATION == 3:
            d["input_length"] = len(self.prompt)
        return d


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, b"")
        elif self.path == "/info":
            self.answer(200, INFO)
        else:
            self.answer(404, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        route = {"/generate": self.generate, "/generate_stream": self.generate_stream, "/tokenize": self.tokenize}
        if self.path not in route:
            self.answer(404, b"")
            return
        try:
            asked = json.loads(body)
            inputs, ask = asked["inputs"], read(asked.get("parameters") or {})
        except (ValueError, KeyError, TypeError) as error:  # axum's own refusal, before any validation
            self.answer(422, f"Failed to deserialize the JSON body into the target type: {error}".encode())
            return
        route[self.path](inputs, ask)

    def generate(self, inputs, ask):
        began = time.monotonic()
        try:
            ask.check(inputs, streams=False)
            c = Continuation(inputs, ask)
        except Invalid as error:
            self.answer(422, error.body())
            return
        for _ in c:
            pass
        body = {"generated_text": c.text}
        if ask["details"] or ask["decoder_input_details"]:
            body["details"] = c.details(streams=False)
        headers = {
            "x-compute-type": "cpu",
            "x-compute-characters": len(inputs),
            "x-total-time": int((time.monotonic() - began) * 1000),
            "x-prompt-tokens": len(c.prompt),
            "x-generated-tokens": len(c.tokens),
        }
        self.answer(200, body, headers)

    def generate_stream(self, inputs, ask):
        """Sends a validation error as an event, as TGI does after status 200."""
        self.send_response(200)
        for name, value in {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            "x-compute-type": "cpu",
            "transfer-encoding": "chunked",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            ask.check(inputs, streams=True)
            c = Continuation(inputs, ask)
            for token, top in c:
                self.event(self.build_event(c, token, top))
        except Invalid as error:
            self.event(error.body())
        self.wfile.write(b"0\r\n\r\n")

    def build_event(self, c, token, top):
        event = {"index": len(c.tokens)} if GENERATION > 1 else {}
        event |= {"token": token, "generated_text": None, "details": None}
        if c.ask["top_n_tokens"]:
            event["top_tokens"] = top
        if c.reason:
            event |= {"generated_text": c.text, "details": c.details(streams=True)}
        return event

    def event(self, value):
        data = b"data:" + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def tokenize(self, inputs, ask):
        self.answer(200, [{"id": t["id"], "text": t["text"], "start": 0, "stop": 0} for t in llama.tokenize(inputs)])

    def answer(self, status, value, headers=()):
        body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain" if isinstance(value, bytes) else "application/json")
        self.send_header("content-length", str(len(body)))
        for name in headers:
            self.send_header(name, str(headers[name]))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


INFO = {
    "model_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "model_sha": None,
    "model_dtype": "q4_1",
    "model_device_type": "cpu",
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_total_tokens": MAX_TOTAL,
    "router": "text-generation-router",
    "version": VERSION,
}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # else the client went away
            super().handle_error(request, client_address)


with llama.running():
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8000")))
    Server(address, Handler).serve_forever()
