// The text of the calling thread's last error, for APIs in C.
#pragma once

namespace kiln {

// Keeps a copy; where there is no memory for one, that is what the text says.
void set_last_error(const char* text) noexcept;

// Keeps a text that is never freed, without memory. For errors that are a lack of it: glibc ends a
// process that has none when a thread first keeps a copy.
void set_lasting_error(const char* text) noexcept;

// Never null; "" before the first error. Until this thread's next error.
const char* last_error() noexcept;

}  // namespace kiln
