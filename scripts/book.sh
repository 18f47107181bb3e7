#!/usr/bin/env bash
# The documentation as a book, in English and Chinese:
#
#     scripts/book.sh               builds target/book/index.html
#
# The sources are the Markdown files of the repository; docs/SUMMARY.md lists them in the order of
# the book. The script fails if a page is missing from that list, or if a link, an anchor or a
# picture of the built book is broken. It uses the mdBook in PATH if that has the version below.
# Otherwise it builds mdBook once into target/tools, which takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MDBOOK=0.5.4
tools=$PWD/target/tools
source=target/book-src

fail() {
    echo "book.sh: $*" >&2
    exit 1
}

has_version() { [ "$("$1" --version 2>/dev/null)" = "mdbook v$MDBOOK" ]; }

mdbook=$(type -P mdbook || true)
if [ -z "$mdbook" ] || ! has_version "$mdbook"; then
    mdbook=$tools/bin/mdbook
    if ! has_version "$mdbook"; then
        type -P cargo >/dev/null || fail "cargo is needed once, to build mdBook"
        echo "book.sh: building mdBook $MDBOOK into target/tools"
        cargo install --quiet --locked --force mdbook --version "=$MDBOOK" --no-default-features --features search \
            --root "$tools" || fail "mdBook cannot be built"
    fi
fi

# The book has the same folders as the repository, so the links of the pages stay correct. Only the
# links of the list are rewritten, because mdBook needs the list in the folder above the pages.
rm -rf "$source" target/book
mkdir -p "$source"
python3 scripts/book.py sources | while read -r file; do
    mkdir -p "$source/$(dirname "$file")"
    cp "$file" "$source/$file"
done
sed -E 's,\]\(\.\./,](@,; s,\]\(([^@]),](docs/\1,; s,\]\(@,](,' docs/SUMMARY.md >"$source/SUMMARY.md"
rm "$source/docs/SUMMARY.md"

"$mdbook" build
python3 scripts/book.py check target/book
