#!/usr/bin/env bash
# Fetch the vocabularies of llama.cpp's tokenizer tests (54 MB, GGUF files without tensors) once and print the folder they lie in.
#
#   tests/scripts/fetch_vocabs.sh [DIR]     DIR: default $WOOLLY_FIXTURES, else models/ at the top of the project; they go to DIR/vocabs
#
# The source package of llama-cpp-python (77 MB) holds them, and llama.cpp's chat templates, which go to DIR/vocabs/templates. The
# SHA-256 of the package and of each vocabulary is checked. Two at once wait for each other. Progress goes to stderr.
set -euo pipefail

package=llama-cpp-python==0.3.36
package_sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
vocabs="
a2f8cfea952ef7c391a6d92a1c309d0bd32e36384d9b9230569a7425732f27d9  ggml-vocab-command-r.gguf
91cb1379f2e33af1c4866b194622b7a0e12e8f0c9dba7ba2f10d55978730bec1  ggml-vocab-deepseek-coder.gguf
867f77537b54565f0d81d508c04edc41aa1d4ffc1a92745f225b4c1b02755f76  ggml-vocab-deepseek-llm.gguf
9f0bf8b0733680398b72e652e90f260f43782f326e75545fc0e49611a5ba35ad  ggml-vocab-falcon.gguf
cedc56ca6e2e89f63e781696d1fd76b4b1d49e6720dee86463e915f6e90016ac  ggml-vocab-gpt-2.gguf
97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e  ggml-vocab-llama-bpe.gguf
16c3724582d59aa8bf84711894e833f916ee46a31d80e21312759c48bf8d0e69  ggml-vocab-llama-spm.gguf
59dc382612866d1fc6c11ea531318d327598f3412d9c8f8600607cdf3030898f  ggml-vocab-mpt.gguf
967d7190d11c4842eab697079d98d56c2116e10eb617be355a2733bfc132e326  ggml-vocab-phi-3.gguf
44c2f46b715f585c6ab513970e8a006bfa5badd6108560054921cf598d154d8c  ggml-vocab-qwen2.gguf
63ed952ff338996cf0bdf24a7b10015124273f75c6dc9bb427356aa3f67ec62c  ggml-vocab-qwen35.gguf
ac3ceda902fed91ccf74312b305d9b86c37e4f8e35fa9cc6ef3ce34fca7d4678  ggml-vocab-refact.gguf
fedb892b4e1bd3c1f2fcdae356440b14fb458f4264d586e5c987ed93df4e174d  ggml-vocab-starcoder.gguf
"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
dir=${1:-${WOOLLY_FIXTURES:-$top/models}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
out=$dir/vocabs

fail() { echo "fetch_vocabs.sh: $*" >&2; exit 1; }
are_right() { [ -d "$1/templates" ] && (cd "$1" && sed '/^$/d' <<<"$vocabs" | sha256sum --check --quiet >/dev/null 2>&1); }

exec 9>"$dir/.fetch-vocabs.lock"
flock 9 || fail "cannot lock $dir/.fetch-vocabs.lock"

if [ -d "$out" ]; then
  if are_right "$out"; then echo "$out"; exit 0; fi
  echo "fetch_vocabs.sh: $out is not complete or has other files than expected; fetching them again" >&2
fi

command -v python3 >/dev/null || fail "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is missing; install it (Debian: apt-get install python3-pip)"

# Beside the target, so that the last step is a rename within one file system.
tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
echo "fetching llama.cpp's vocabularies (77 MB, Python source package $package) ..." >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$tmp" "$package" >&2 ||
  fail "pip could not download $package; with no network, put the files of its vendor/llama.cpp/models into $out yourself"
archive=$(echo "$tmp"/llama_cpp_python-*.tar.gz)
found=$(sha256sum <"$archive" | cut -d' ' -f1)
[ "$found" = "$package_sha256" ] || fail "$package has SHA-256 $found, expected $package_sha256"
mkdir "$tmp/vocabs"
sed -n 's|.*  |*/vendor/llama.cpp/models/|p' <<<"$vocabs" >"$tmp/wanted"
echo '*/vendor/llama.cpp/models/templates/*.jinja' >>"$tmp/wanted"
tar -xzf "$archive" -C "$tmp/vocabs" --strip-components=4 --wildcards --files-from "$tmp/wanted" || fail "cannot unpack $package"
are_right "$tmp/vocabs" || fail "$package holds other vocabularies than expected"
rm -rf "$out"
mv "$tmp/vocabs" "$out"
echo "$out"
