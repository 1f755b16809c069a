"""Files or a Kafka topic in, one validated and deduplicated event each out.

May import: storage and the ground modules.
"""
