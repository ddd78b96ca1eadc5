# SPDX-License-Identifier: Apache-2.0
# awk -v out=FOLDER -f extract.awk PAGE.md: writes the code blocks of a page whose first line names a file.
# Fails on a C or C++ block without a name: then nothing would test it.
/^```/ {
    if (inside) { inside = 0; if (name != "") close(out "/" name); name = "" }
    else { inside = 1; first = 1; kind = substr($0, 4) }
    next
}
inside && first {
    first = 0
    if ($2 == "file:") name = $3
    else if (kind == "cpp" || kind == "c") { print FILENAME ":" FNR ": this block names no file" > "/dev/stderr"; exit 1 }
}
inside && name != "" { print > (out "/" name) }
