"""What every widget of the book owes its readers."""

from playwright.sync_api import Locator, Page

SPOKEN = "button, input, select, [tabindex='0'], [role='treeitem'], [role='img']"


def without_a_name(root: Locator) -> list[str]:
    """What can be operated or stands for a picture, and does not tell those who cannot see it what it is."""
    return root.evaluate(
        """(root, spoken) => [...root.querySelectorAll(spoken)]
            .filter((node) => !node.textContent.trim() && !node.ariaLabel)
            .filter((node) => ![...(node.labels ?? [])].some((label) => label.textContent.trim()))
            .map((node) => node.outerHTML)""",
        SPOKEN,
    )


def colours_of_themes(page: Page, root: Locator) -> tuple[str, str]:
    """The colour of a widget's text in the light and in the dark theme of the book."""
    colours = []
    for theme in ("light", "dark"):
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        colours.append(root.evaluate("(root) => getComputedStyle(root).getPropertyValue('color')"))
    return colours[0], colours[1]


def wait_until_drawn(pictures: Locator) -> None:
    """Wait until every canvas shows more than one colour: a browser decodes pictures after it has laid the page out."""
    for number in range(pictures.count()):
        pictures.page.wait_for_function(
            """(canvas) => {
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return data.some((value, i) => i >= 4 && value !== data[i % 4]);
            }""",
            arg=pictures.nth(number).element_handle(),
        )
