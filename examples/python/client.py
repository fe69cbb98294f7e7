"""Runs a module from Python through gRPC and shows its output while it runs.

From the root of the repository, with `npm start -- --config examples/modules.yaml` running beside it:

    python3 -m venv .venv && .venv/bin/pip install grpcio grpcio-tools
    mkdir -p stubs && .venv/bin/python -m grpc_tools.protoc -I proto/vendor -I proto \
        --python_out=stubs --grpc_python_out=stubs \
        proto/harrier/v1/*.proto proto/vendor/google/api/*.proto proto/vendor/buf/validate/*.proto
    PYTHONPATH=stubs .venv/bin/python examples/python/client.py
"""

import json
import os
import pathlib
import sys

import grpc
from harrier.v1 import execution_pb2, execution_pb2_grpc

ADDRESS = os.environ.get("HARRIER_ADDRESS", "127.0.0.1:8000")
KEY_FILE = pathlib.Path(os.environ.get("HARRIER_DATA_DIR", ".harrier"), "admin.key")


def main():
    key = os.environ.get("HARRIER_API_KEY") or KEY_FILE.read_text().strip()
    metadata = [("authorization", f"Bearer {key}")]
    with grpc.insecure_channel(ADDRESS) as channel:
        executions = execution_pb2_grpc.ExecutionServiceStub(channel)

        # One call, one answer. A failed execution is an answer too: look at its state.
        request = execution_pb2.ExecuteRequest(module="hello-world", input_json=json.dumps({"name": "Python"}))
        execution = executions.Execute(request, metadata=metadata, timeout=60).execution
        if execution.state != execution_pb2.Execution.SUCCEEDED:
            sys.exit(f"{execution.id} failed: {execution.error.message}")
        print(json.loads(execution.output_json))

        # What it prints, as it prints it.
        request = execution_pb2.ExecuteStreamRequest(module="count", input_json='{"to": 3}')
        for answer in executions.ExecuteStream(request, metadata=metadata, timeout=60):
            event = answer.WhichOneof("event")
            if event == "log":
                sys.stdout.write(answer.log.data.decode(errors="replace"))
            elif event == "progress":
                print(f"{answer.progress.percent:.0f} % {answer.progress.step}")
            elif event == "result":
                print(json.loads(answer.result.output_json))


if __name__ == "__main__":
    main()
