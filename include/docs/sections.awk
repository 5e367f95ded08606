# The header as doxygen wants it: the comment at its top describes the file, each other one that stands out begins a
# section of the page.
/^\/\* ====/ {
    sections++
    if (sections == 1) { print "/** @file"; next }
    if (sections > 2) print "/** @} */"
    print "/**"
    getline
    sub(/^ \* /, " * @name ")
    print
    title = 1
    next
}
title && /^ \*\/$/ { print; print "/** @{ */"; title = 0; next }
sections > 1 && /^#ifdef __cplusplus/ { print "/** @} */" }
{ print }
