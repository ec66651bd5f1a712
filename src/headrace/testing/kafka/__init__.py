"""Real Apache Kafka on this machine, for tests and demos."""

from headrace.testing.kafka.cluster import KafkaCluster
from headrace.testing.kafka.define import KafkaClusterError, NodeState
from headrace.testing.kafka.machine import Machine

__all__ = ["KafkaCluster", "KafkaClusterError", "Machine", "NodeState"]
