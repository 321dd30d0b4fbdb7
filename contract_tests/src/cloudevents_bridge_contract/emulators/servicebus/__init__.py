"""An emulator of Azure Service Bus: AMQP 1.0 and the administration API, on the loopback interface.

`store` (queue, namespace, rules, sql) holds what the service does, as plain objects that are told the time; `amqp`,
`management` and `administration` are its fronts; `launcher` starts it. What differs from the service stands in the
documentation's page on it.
"""
