/* A library with thread-local data; it is loaded under many names. */
static __thread int number = 80;

int *number_of_thread(void);

int *number_of_thread(void)
{
    return &number;
}
