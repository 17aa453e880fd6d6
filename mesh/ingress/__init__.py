"""A mesh as a server: OpenAI-compatible HTTP, gRPC and a web page, in Ray Serve replicas.

keys, limits, settings, tls     who may come, how much, where, and with which certificates
patience                        how long Serve's HTTP proxy waits for a request
names, requests, newcomers      what a request may be; pure
wire, errors                    what is told back; pure
gate                            who may come in now: rates, streams, the queue
door                            one replica's way into the mesh: HTTP and gRPC both go through it
served, ledger                  the mesh as a replica needs it; what all replicas know together of past queries
guard, http, page               HTTP
ending                          what is said in Serve's proxy when a replica dies
grpc_server, grpc_client        gRPC, and who asks a mesh elsewhere by it
federation, gateway             a mesh elsewhere as an agent of this one: how it is asked, what it decides (pure)
meters                          what is measured
serving, deploy, command        starting and ending it all
"""
