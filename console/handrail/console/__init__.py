"""The console: pages that show people what flows do, and why.

Everything comes from the coordinator's gRPC API, asked with the person's own token. The process keeps nothing but the
sessions of those who signed in, in memory. If it stops, nothing waits for it, and everybody signs in again.
"""
