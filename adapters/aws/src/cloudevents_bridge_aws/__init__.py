"""Amazon SNS and SQS: `aws://REGION`, and `aws-sqs://REGION` for queues without topics.

- URL: `aws://REGION`, with `?account=…`, `?endpoint=…` and `?mode=binary`. Options: these, `session`, `client`,
  `max_pool_connections`, `poll`, `queue_bytes`, `topic_bytes`, `tags`. Credentials come from boto3's own chain.
- Names: SNS topic `orders`; SQS queue `orders--billing`; its dead letters `orders--billing--dlq`; each with `.fifo`
  where the topic is ordered.
- Delivery semantics: a lease is a visibility timeout; a retry with a delay is one too; attempts are SQS's own count.
- Wire form: the event in the JSON format as the body, and `content-type`; binary by option; both modes are read.
- Limits: 256 KiB in a publish to a topic, 1 MiB in one to a queue, 10 events in a request.
- Permissions: `ceb topology policy ROLE` prints the policy.
- Native access: `broker.native` has boto3's session and clients; `moving.move_dead_letters` moves a whole queue.
- Quirks: see the page of the documentation.
"""

from __future__ import annotations

from cloudevents_bridge_aws.adapter import adapter, sqs_adapter
from cloudevents_bridge_aws.envelope import sns_envelope

__all__ = ["adapter", "sns_envelope", "sqs_adapter"]
