#!/usr/bin/env bash
# Makes src/informerd/v1 anew from proto/. Needs grpcio-tools of the version in constraints.txt, whose stubs run with
# every version of grpcio and protobuf that pyproject.toml allows; CI checks that the stubs are up to date.
set -euo pipefail
cd "$(dirname "$0")"
rm -f src/informerd/v1/*_pb2*.py*
protos=$(cd ../../proto && ls informerd/v1/*.proto)
"${PYTHON:-python3}" -m grpc_tools.protoc --proto_path=../../proto \
    --python_out=src --pyi_out=src --grpc_python_out=src $protos
# It has no service.
rm src/informerd/v1/types_pb2_grpc.py
