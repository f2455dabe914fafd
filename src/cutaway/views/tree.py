"""A drawing as plain values, for a client that makes each element itself and parses no markup."""

from xml.etree import ElementTree

from markupsafe import Markup

Tree = list[object]
"""An element: its name, its attributes, and what is in it: elements and texts."""

_NAMESPACE = "{http://www.w3.org/2000/svg}"


def tree(svg: Markup) -> Tree:
    """The elements of a figure's drawing."""
    return _element(ElementTree.fromstring(svg))


def _element(element: ElementTree.Element) -> Tree:
    children: list[object] = [element.text] if element.text else []
    for child in element:
        children.append(_element(child))
        if child.tail:
            children.append(child.tail)
    return [element.tag.removeprefix(_NAMESPACE), dict(element.attrib), children]
