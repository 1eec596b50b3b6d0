"""What is called, by a channel of either kind."""

from __future__ import annotations

from typing import Any

from informerd.v1 import cache_pb2_grpc, introspection_pb2_grpc, readiness_pb2_grpc

__all__ = ["get_object", "get_readiness", "list_kinds", "wait_readiness"]


def get_object(channel: Any) -> Any:
    return cache_pb2_grpc.CacheServiceStub(channel).GetObject


def get_readiness(channel: Any) -> Any:
    return readiness_pb2_grpc.ReadinessServiceStub(channel).GetReadiness


def wait_readiness(channel: Any) -> Any:
    return readiness_pb2_grpc.ReadinessServiceStub(channel).WaitReadiness


def list_kinds(channel: Any) -> Any:
    return introspection_pb2_grpc.IntrospectionServiceStub(channel).ListKinds
