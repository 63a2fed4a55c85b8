FROM scratch
COPY versitygw /usr/local/bin/versitygw
ENV PATH=/usr/local/bin
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/versitygw"]
