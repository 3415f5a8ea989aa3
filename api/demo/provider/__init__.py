"""The service provider of the demo: back end and mobile site (サービス提供機関, モバイルサイト).

It issues JPKI credentials into the security domain that it owns on its customers' cards. Three keys never leave its
vault: the master of that domain's keys, the one that signs launch parameters, and the one under which the certificate
authority hands over private keys.
"""
