# A trial Postgres of Debian's packages, told by the variables that the public image knows.
FROM scratch
ADD rootfs.tar /
RUN echo 'penstock:x:10001:10001::/tmp:/bin/sh' >> /etc/passwd && echo 'penstock:x:10001:' >> /etc/group
COPY quickstart-postgres /usr/local/bin/quickstart-postgres
ENV LANG=C.UTF-8
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/quickstart-postgres"]
