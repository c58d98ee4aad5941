#!/bin/sh
# Makes throw-away authorities, X.509-SVIDs and broken ones for trying things by hand. See README.md.
set -eu

out=${1:-$(dirname "$0")/out}
mkdir -p "$out"
cd "$out"
umask 077

# name, subject, URI SAN or nothing: an authority that signs itself.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -out "$1.pem" \
        -days 30 -sha256 -subj "/O=SPIFFE/CN=$2" -addext "subjectAltName=URI:$3" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" 2>/dev/null
}

# The extensions of a leaf as SPIRE makes it; further lines replace them by their name.
leaf_extensions() {
    san=$1
    shift
    usage="keyUsage=critical,digitalSignature"
    extended="extendedKeyUsage=serverAuth,clientAuth"
    basic="basicConstraints=critical,CA:FALSE"
    for line in "$@"; do
        case $line in
            keyUsage=*) usage=$line ;;
            extendedKeyUsage=*) extended=$line ;;
            basicConstraints=*) basic=$line ;;
        esac
    done
    for line in "subjectAltName=$san" "$usage" "$extended" "$basic"; do
        case $line in *=) ;; *) echo "$line" ;; esac
    done
}

# name, authority, key arguments, signing arguments, then as leaf_extensions.
sign() {
    name=$1 ca=$2 key=$3 how=$4
    shift 4
    leaf_extensions "$@" >"$name.ext"
    # shellcheck disable=SC2086 # the arguments are words on purpose
    openssl req -new -newkey $key -nodes -keyout "$name.key" -out "$name.csr" -subj "/O=SPIFFE/CN=$name" 2>/dev/null
    # shellcheck disable=SC2086
    openssl x509 -req -in "$name.csr" -CA "$ca.pem" -CAkey "$ca.key" -CAcreateserial -out "$name.pem" \
        -extfile "$name.ext" $how 2>/dev/null
    openssl x509 -in "$name.pem" -outform DER -out "$name.der"
    rm -f "$name.csr" "$name.ext"
}

ec="ec -pkeyopt ec_paramgen_curve:P-256"
usual="-sha256 -days 2"
id=spiffe://example.org/ns/shop/sa

authority ca example.org spiffe://example.org
authority partner-ca partner.example spiffe://partner.example

# Right.
sign orders ca "$ec" "$usual" "URI:$id/orders"
sign storefront ca "$ec" "$usual" "URI:$id/storefront,DNS:storefront.shop.svc"
sign partner partner-ca "$ec" "$usual" URI:spiffe://partner.example/batch
sign rsa ca rsa:2048 "$usual" "URI:$id/rsa"

# An intermediate authority, and a leaf below it. The file has the whole chain, the leaf first.
sign intermediate ca "$ec" "$usual" URI:spiffe://example.org \
    "keyUsage=critical,keyCertSign,cRLSign" "basicConstraints=critical,CA:TRUE" "extendedKeyUsage="
sign deep intermediate "$ec" "$usual" "URI:$id/deep"
cat intermediate.pem >>deep.pem

# Broken. Each breaks one rule.
sign bad-no-uri ca "$ec" "$usual" DNS:orders.shop.svc
sign bad-two-uris ca "$ec" "$usual" "URI:$id/orders,URI:$id/storefront"
sign bad-no-path ca "$ec" "$usual" URI:spiffe://example.org
sign bad-uppercase ca "$ec" "$usual" URI:spiffe://Example.org/orders
sign bad-query ca "$ec" "$usual" "URI:$id/orders?admin=true"
sign bad-ca ca "$ec" "$usual" "URI:$id/orders" "basicConstraints=critical,CA:TRUE"
sign bad-no-key-usage ca "$ec" "$usual" "URI:$id/orders" "keyUsage="
sign bad-key-cert-sign ca "$ec" "$usual" "URI:$id/orders" "keyUsage=critical,digitalSignature,keyCertSign"
sign bad-server-only ca "$ec" "$usual" "URI:$id/orders" "extendedKeyUsage=serverAuth"
sign bad-rsa-1024 ca rsa:1024 "$usual" "URI:$id/orders"
sign bad-sha1 ca "$ec" "-sha1 -days 2" "URI:$id/orders"
sign bad-foreign-ca partner-ca "$ec" "$usual" "URI:$id/orders"
# Over a day before it is made.
sign bad-expired ca "$ec" "-sha256 -days -1" "URI:$id/orders"

echo "made in $(pwd):"
ls -- *.pem
