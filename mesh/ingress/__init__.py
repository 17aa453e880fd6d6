"""A mesh as a server: OpenAI-compatible HTTP, gRPC and a web page, in Ray Serve replicas.

keys, limits, names, wire, errors   what a request may be and becomes; pure
gate                                who may come in now: rates, streams, the queue
door                                one replica's way into the mesh: HTTP and gRPC both go through it
ledger                              what all replicas know together: past queries, for traces and feedback
guard, http, page                   HTTP
serving, command                    starting and ending it all
"""
