"""docs/recipes.md as configuration: what the page says is what runs."""

import re

from harness import paths

PAGE = paths.ROOT / "docs" / "recipes.md"
BLOCK = re.compile(r"```apache\n<VirtualHost \*:443>\n(.*?)^</VirtualHost>\n```", re.S | re.M)
#: Lines of a virtual host that depend on the site: its name, and the certificate.
OF_THE_SITE = re.compile(r"^    (ServerName .*|SSLEngine on|\.\.\.)\n", re.M)


def sections():
    """Text by heading, for each recipe of the page."""
    _, *parts = re.split(r"^## ", PAGE.read_text(), flags=re.M)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts) if "```apache" in text}


def recipe(name, **ports):
    """The directives of this recipe; `ports` maps the page's ports, as in p8888=port, to those of this run."""
    [block] = BLOCK.findall(sections()[name])
    text, removed = OF_THE_SITE.subn("", block)
    assert removed == 3, block
    for wanted, port in ports.items():
        number = wanted.removeprefix("p")
        text, found = re.subn(rf"\b(localhost|127\.0\.0\.1):{number}\b", rf"\1:{port}", text)
        assert found, f"{name}: no port {number}"
    left = re.findall(r"(?:localhost|127\.0\.0\.1):(\d+)", text)
    assert sorted(left) == sorted(str(port) for port in map(int, left) if port in ports.values()), left
    return text


def listing(name, language):
    """The other listing of this recipe in this language: what goes into the application's own file."""
    [text] = re.findall(rf"```{language}\n(.*?)^```", sections()[name], re.S | re.M)
    return text
