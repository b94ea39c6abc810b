"""What a distribution needs of this interpreter: the library `packaging` reads it."""

from packaging.requirements import Requirement


def needed_here(line: str) -> Requirement | None:
    """The requirement of a line `Requires-Dist`; None where its marker excludes this interpreter, or wants an extra.

    Raises:
        ValueError: where the line can't be read; says why.
    """
    try:
        requirement = Requirement(line)
        excluded = requirement.marker is not None and not requirement.marker.evaluate()
    except ValueError as error:
        raise ValueError(f'"{line}" is no requirement: {str(error).splitlines()[0]}') from error
    except RecursionError as error:
        raise ValueError(f'"{line}" has too many brackets in each other') from error
    return None if excluded else requirement
