"""Any training at all, as a function of its settings: `task=function task.target=my_train.train`."""
