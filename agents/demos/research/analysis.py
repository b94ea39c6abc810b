"""The agent that measures a file. Any number of workers measure files at the same time."""

import hashlib
from pathlib import Path

from demos.research.imports import dead_imports
from demos.research.measure import decisions, functions, parse
from demos.research.source import SourceError, decode, read
from handrail.agents import Agent
from research.v1.research_pb2 import DeadImport, FileAnalysed, FileFound, Function

agent = Agent("analysis", validate_inbound=True)

_MOST_FUNCTIONS = 20
_MOST_IMPORTS = 50


@agent.on(FileFound)
def analyse(event: FileFound) -> FileAnalysed:
    """Measures a file. A file that can't be read, or is not Python, is a result too."""
    try:
        return measured(Path(event.folder), event.path)
    except SourceError as error:
        return FileAnalysed(path=event.path, problem=str(error)[:512])


def measured(folder: Path, path: str) -> FileAnalysed:
    """The measures of a file. Raises SourceError if it can't be read or is not Python."""
    content = read(folder, path)
    text = decode(content, path)
    tree = parse(text, path)
    found = list(functions(tree))
    standing_out = sorted(filter(lambda each: each.stands_out, found), key=lambda each: -each.complexity)
    dead = dead_imports(tree, text, is_package=path.rpartition("/")[2] == "__init__.py")
    return FileAnalysed(
        path=path,
        digest=hashlib.sha256(content).hexdigest(),
        lines=len(text.splitlines()),
        functions=len(found),
        decisions=decisions(tree),
        complexity=sum(each.complexity for each in found),
        standing_out=[
            Function(path=path, name=each.name, line=each.line, lines=each.lines, complexity=each.complexity)
            for each in standing_out[:_MOST_FUNCTIONS]
        ],
        dead_imports=[DeadImport(path=path, line=each.line, name=each.name) for each in dead[:_MOST_IMPORTS]],
    )


if __name__ == "__main__":
    agent.run()
