"""Versions of a federation's adapter and base, as a device gets them: signed, fetched in part, installed whole.

==================  ====================================================================================
``document``        a signed line of JSON, and whose signatures are believed
``version``         what a version is; which one is the head of a channel
``source``, ``web``  where versions are: a folder, or a server reached by TLS
``download``        one file, resumed where it was broken off, proven before it has its name
``installed``       what is on this device, and what answers
``fetch``           from a head to an installed version
``migrate``         from one base to another, without losing what was learnt
==================  ====================================================================================

A shelf, its server's routes and a static copy of it have one layout:

==================================  ====================================================================
``versions/head/<channel>``         the signed head of a channel
``versions/<sha256>``               a signed version, under the hash of what is signed
``blobs/<sha256>``                  a file of a bundle
==================================  ====================================================================
"""
