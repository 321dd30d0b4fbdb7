"""Google Cloud Pub/Sub: `gcp://PROJECT`.

- URL: `gcp://PROJECT`, with `?mode=structured` and `?endpoint=…`. Options: `endpoint`, `mode`, `credentials`,
  `batch_bytes`. `PUBSUB_EMULATOR_HOST` is obeyed.
- Names: topic `orders`; subscription `orders--billing`; its dead letters, topic and subscription,
  `orders--billing--dlq`.
- Delivery semantics: unary pull; leases are ack deadlines; a retry with a delay is an ack deadline that runs out;
  attempts are counted by the subscription's dead-letter policy.
- Wire form: binary, `ce-` attributes and `content-type`, as Google's own binding says; both modes are read.
- Limits: 10 MB and 1,000 messages in a request; 100 attributes of 256 and 1,024 bytes.
- Permissions: `ceb topology policy ROLE` prints the commands that grant them.
- Native access: `broker.native` has Google's own clients, on the same connection.
- Quirks: see the page of the documentation.
"""

from __future__ import annotations

from cloudevents_bridge_gcp.adapter import adapter

__all__ = ["adapter"]
