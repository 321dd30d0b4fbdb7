"""Google's SDK, as far as each message needs it: its messages without the wrappers laid around them, and gRPC.

The wrappers of `google.pubsub_v1.types` cost several times what a message does; `.pb()` gives the class below. This is
the one module that imports the SDK at its head, and it is imported by those that make requests.
"""

from __future__ import annotations

import os
from typing import Any

# The child of a fork opens its own connections: gRPC allows that when told so before its import.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")

import grpc
from google.api_core.exceptions import GoogleAPICallError, from_grpc_error
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import types

__all__ = ["Duration", "Empty", "FieldMask", "GoogleAPICallError", "from_grpc_error", "grpc"]

PubsubMessage: Any = types.PubsubMessage.pb()
PublishRequest: Any = types.PublishRequest.pb()
PublishResponse: Any = types.PublishResponse.pb()
PullRequest: Any = types.PullRequest.pb()
PullResponse: Any = types.PullResponse.pb()
AcknowledgeRequest: Any = types.AcknowledgeRequest.pb()
ModifyAckDeadlineRequest: Any = types.ModifyAckDeadlineRequest.pb()
Topic: Any = types.Topic.pb()
GetTopicRequest: Any = types.GetTopicRequest.pb()
UpdateTopicRequest: Any = types.UpdateTopicRequest.pb()
DeleteTopicRequest: Any = types.DeleteTopicRequest.pb()
ListTopicSubscriptionsRequest: Any = types.ListTopicSubscriptionsRequest.pb()
ListTopicSubscriptionsResponse: Any = types.ListTopicSubscriptionsResponse.pb()
Subscription: Any = types.Subscription.pb()
GetSubscriptionRequest: Any = types.GetSubscriptionRequest.pb()
UpdateSubscriptionRequest: Any = types.UpdateSubscriptionRequest.pb()
DeleteSubscriptionRequest: Any = types.DeleteSubscriptionRequest.pb()
DeadLetterPolicy: Any = types.DeadLetterPolicy.pb()
RetryPolicy: Any = types.RetryPolicy.pb()
ExpirationPolicy: Any = types.ExpirationPolicy.pb()
SchemaSettings: Any = types.SchemaSettings.pb()
Encoding: Any = types.Encoding
