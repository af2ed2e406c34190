#!/bin/sh
# Makes what the members and one client of this example show: an authority in pki/, and certificates that it signs. An
# organisation has an authority already; then this shows what its certificates must say.
set -eu

mkdir -p pki
chmod 700 pki
cd pki

key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"; }

# What the authority's own certificate is for: signing, and nothing else.
key ca
openssl req -x509 -new -key ca.key -days 3650 -out ca.crt -subj "/CN=example authority" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"

# NAME PURPOSES ALTERNATIVE-NAMES: hosts and addresses under which others dial it.
issue() {
    key "$1"
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" "extendedKeyUsage=$2" \
        ${3:+"subjectAltName=$3"} >"$1.ext"
    openssl req -new -key "$1.key" -subj "/CN=$1" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 -extfile "$1.ext" -out "$1.crt"
    rm "$1.ext"
}

# A member is a server to clients and other members, and a client of other members.
for number in 1 2 3; do
    issue "m$number" serverAuth,clientAuth "IP:127.0.0.$number,DNS:localhost"
done
issue client clientAuth ""
