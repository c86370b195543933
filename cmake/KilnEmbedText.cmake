# cmake -DOUTPUT=file.inc -DINPUTS=a.cuh,b.cuh -P KilnEmbedText.cmake
# Writes a row {"name", R"text(...)text"}, for each input.
string(REPLACE "," ";" INPUTS "${INPUTS}")
set(rows "")
foreach(input ${INPUTS})
  file(READ "${input}" text)
  get_filename_component(name "${input}" NAME)
  string(APPEND rows "{\"${name}\", R\"kiln_text(${text})kiln_text\"},\n")
endforeach()
file(WRITE "${OUTPUT}" "${rows}")
