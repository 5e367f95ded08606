module kvdemo

go 1.19
