"""The version of Handrail. The distribution takes its version from here, because reading the installed metadata takes
longer than `handrail --version` may.
"""

VERSION = "0.1.0"
