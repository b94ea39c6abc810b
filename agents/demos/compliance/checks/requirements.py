"""The requirements of a distribution under this interpreter, parsed by the library `packaging`."""

from packaging.requirements import Requirement


def needed_here(line: str) -> Requirement | None:
    """Parses a line `Requires-Dist`; None if its marker excludes this interpreter, or requires an extra.

    Raises:
        ValueError: if the line can't be parsed; says why.
    """
    try:
        requirement = Requirement(line)
        excluded = requirement.marker is not None and not requirement.marker.evaluate()
    except ValueError as error:
        raise ValueError(f'"{line}" is not a requirement: {str(error).splitlines()[0]}') from error
    except RecursionError as error:
        raise ValueError(f'"{line}" has too many nested brackets') from error
    return None if excluded else requirement
