"""MQTT topic names and filters: what is well formed, what matches, who subscribes (section 4.7, 4.8)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from simulators.mqtt5_fields import malformed

S = TypeVar("S")
T = TypeVar("T")

NOBODY = ""
"""The share group of an ordinary subscription: a ShareName 'MUST be at least one character long'."""


def check_topic(topic: str) -> str:
    """A Topic Name: never empty here, since topic aliases are not offered, and without wildcards."""
    if not topic or "+" in topic or "#" in topic:
        raise malformed(f"expected a topic name, got {topic!r}")
    return topic


def check_filter(name: str) -> str:
    """A Topic Filter, shared or not. Wildcards fill whole levels, and '#' only the last."""
    group, filter_ = split_share(name)
    levels = filter_.split("/")
    crooked = any(("+" in level or "#" in level) and len(level) > 1 for level in levels)
    if not filter_ or crooked or "#" in levels[:-1] or "+" in group or "#" in group:
        raise malformed(f"expected a topic filter, got {name!r}")
    return name


def split_share(name: str) -> tuple[str, str]:
    """`$share/group/filter` as group and filter; an ordinary filter's group is NOBODY."""
    if not name.startswith("$share/"):
        return NOBODY, name
    _, group, *rest = name.split("/", 2)
    if not group or not rest:
        raise malformed(f"expected $share/group/filter, got {name!r}")
    return group, rest[0]


@dataclass(slots=True)
class Node(Generic[S, T]):
    """One topic level. `groups` says who subscribes up to here: by share group, then by subscriber."""

    children: "dict[str, Node[S, T]]" = field(default_factory=dict)
    groups: dict[str, dict[S, T]] = field(default_factory=dict)


class Tree(Generic[S, T]):
    """Subscriptions by level of their filter, so that a publish looks only at what may match."""

    def __init__(self) -> None:
        self._root: Node[S, T] = Node()

    def add(self, name: str, subscriber: S, subscription: T) -> bool:
        """Add or replace; whether it is new."""
        group, filter_ = split_share(name)
        node = self._root
        for level in filter_.split("/"):
            node = node.children.setdefault(level, Node())
        members = node.groups.setdefault(group, {})
        new = subscriber not in members
        members[subscriber] = subscription
        return new

    def remove(self, name: str, subscriber: S) -> bool:
        """Take away, with the branches that then hold nothing; whether it was there."""
        group, filter_ = split_share(name)
        path = [self._root]
        levels = filter_.split("/")
        for level in levels:
            if level not in path[-1].children:
                return False
            path.append(path[-1].children[level])
        members = path[-1].groups.get(group, {})
        if subscriber not in members:
            return False
        del members[subscriber]
        if not members:
            del path[-1].groups[group]
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent.children[level]
            if not child.children and not child.groups:
                del parent.children[level]
        return True

    def covers(self, topic: str) -> bool:
        return any(True for _ in self.matching(topic))

    def matching(self, topic: str) -> Iterator[dict[str, dict[S, T]]]:
        """The groups of every filter that takes in `topic`."""
        levels = topic.split("/")
        # "The Server MUST NOT match Topic Filters starting with a wildcard character (# or +) with Topic
        # Names beginning with a $ character" [MQTT-4.7.2-1]
        nodes = [self._root]
        for depth, level in enumerate(levels):
            wild = depth > 0 or not topic.startswith("$")
            following = []
            for node in nodes:
                if wild and "#" in node.children:
                    yield node.children["#"].groups
                if wild and "+" in node.children:
                    following.append(node.children["+"])
                if level in node.children:
                    following.append(node.children[level])
            nodes = following
        for node in nodes:
            if node.groups:
                yield node.groups
            # "sport/tennis/player1/#" also matches "sport/tennis/player1": '#' includes the parent level.
            if "#" in node.children:
                yield node.children["#"].groups
