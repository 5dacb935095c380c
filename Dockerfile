# The image of dstack: its one static binary, for the server and for gateways. docs/guides/install.md says how to run it.
# `scripts/build.sh image` prepares dist/image, which is the build context, and builds it without a pull.
#
# The base image is empty. The server reads git repositories with the program git: for those, name a base image that has it,
# with --build-arg BASE=….

ARG BASE=scratch
FROM ${BASE}

# /tmp, and /etc/passwd with the user dstack.
COPY rootfs/ /
COPY --chown=65532:65532 state/ /var/lib/dstack/
COPY dstack /usr/bin/dstack

ENV HOME=/var/lib/dstack DSTACK_SERVER_HOST=0.0.0.0
WORKDIR /var/lib/dstack
VOLUME /var/lib/dstack
USER 65532:65532

# The server's own port, and those of gateways.
EXPOSE 3000 80 443

ENTRYPOINT ["/usr/bin/dstack"]
CMD ["server"]
